"""One module a family of verbs; each public function returns its `Command` (see `atoll.cli.commands`)."""
