import pytest

from atoll.cli import human
from atoll.cli.output import show
from atoll.cli.table import table
from atoll.cli.template import Template, TemplateError

VALUE = {
    "Name": "web",
    "State": {"Running": True, "ExitCode": 0},
    "Ports": ["80", "443"],
    "Labels": {"a": "1", "b": "2"},
    "Empty": [],
    "Size": 3.0,
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.Name}}", "web"),
        ("{{ .State.Running }}", "true"),
        ("{{json .State}}", '{"Running":true,"ExitCode":0}'),
        ("{{.State.ExitCode}}", "0"),
        ("{{range .Ports}}[{{.}}]{{end}}", "[80][443]"),
        ("{{range $i, $p := .Ports}}{{$i}}={{$p}} {{end}}", "0=80 1=443 "),
        ("{{range $k, $v := .Labels}}{{$k}}:{{$v}};{{end}}", "a:1;b:2;"),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ('{{index .Labels "b"}}', "2"),
        ("{{index .Ports 1}}", "443"),
        ("{{len .Ports}}", "2"),
        ('{{join .Ports ","}}', "80,443"),
        ("{{.Name | upper}}", "WEB"),
        ('{{printf "%s-%d" .Name 3}}', "web-3"),
        ('{{if eq .Name "web"}}yes{{else}}no{{end}}', "yes"),
        ("{{if .Empty}}a{{else if .Name}}b{{else}}c{{end}}", "b"),
        ("{{with .State}}{{.ExitCode}}{{end}}", "0"),
        ("{{with .State}}{{$.Name}}{{end}}", "web"),
        ("{{$x := .Name}}{{$x}}", "web"),
        ("a {{- .Name -}} b", "awebb"),
        ("{{/* nothing */}}x", "x"),
        ("{{.Size}}", "3"),
        ("{{.Labels}}", "map[a:1 b:2]"),
        ("{{.Ports}}", "[80 443]"),
        ('{{(index .Ports 0) | printf "%q"}}', '"80"'),
        ("{{and .Name (not .Empty)}}", "true"),
        ('{{split .Name "e"}}', "[w b]"),
        ("{{title .Name}}{{lower .Name}}{{truncate .Name 2}}{{pad .Name 1 1}}", "Webwebwe web "),
        ("{{println .Name}}", "web\n"),
    ],
)
def test_template(template, text):
    assert Template(template).render(VALUE) == text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{.Bogus}}", 'no entry for key "Bogus"'),
        ("{{bogus .}}", 'function "bogus" not defined'),
        ("{{if .Name}}", "unexpected EOF"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{.Name", "unclosed action"),
        ("{{$x}}", "undefined variable"),
        ("{{index .Ports 9}}", "out of range"),
        ("{{(.Name}}", "unclosed left paren"),
    ],
)
def test_template_errors(template, message):
    with pytest.raises(TemplateError, match=message.replace("{", r"\{").replace("}", r"\}")):
        Template(template).render(VALUE)


def test_table_is_aligned():
    text = table(("CONTAINER ID", "NAME"), [("abc", "x"), ("a-longer-identifier", "y")])
    assert text == "CONTAINER ID          NAME\nabc                   x\na-longer-identifier   y"


def test_show_json_template_and_table(capsys):
    rows = [{"ID": "1", "Name": "a"}]
    columns = (("ID", "ID"), ("NAME", "Name"))
    show(rows, columns, None)
    show(rows, columns, "json")
    show(rows, columns, "{{.Name}}!")
    show(rows, columns, "table {{.Name}}\\t{{.ID}}")
    assert capsys.readouterr().out == 'ID        NAME\n1         a\n{"ID":"1","Name":"a"}\na!\nNAME      ID\na         1\n'


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0B"), (999, "999B"), (1000, "1kB"), (1234567, "1.23MB"), (116_800_000, "117MB"), (5 * 10**9, "5GB")]
)
def test_size(count, text):
    assert human.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (120, "2 minutes"),
        (3600, "About an hour"),
        (7200, "2 hours"),
        (86400 * 3, "3 days"),
        (86400 * 21, "3 weeks"),
        (86400 * 90, "3 months"),
        (86400 * 800, "2 years"),
    ],
)
def test_duration(seconds, text):
    assert human.duration(seconds) == text


def test_moment():
    assert human.moment("1970-01-01T00:00:10.5Z") == 10.5
    assert human.moment("1970-01-01T01:00:10+01:00") == 10
    assert human.moment("0001-01-01T00:00:00Z") == 0


def test_templates_call_methods_and_know_maps_of_the_users():
    row = {"Name": "a", "Label": {"colour": "blue"}.get, "Config": {"Labels": {"x": "1"}}}
    assert Template('{{.Name}} {{.Label "colour"}}').render(row) == "a blue"
    assert Template("{{.Config.Labels.y}}").render(row) == "<no value>"  # as Go has it for a key that a map lacks
    with pytest.raises(TemplateError, match='map has no entry for key "Nope"'):
        Template("{{.Config.Nope}}").render(row)
    with pytest.raises(TemplateError, match="error calling lt"):
        Template("{{lt .Name 3}}").render(row)


def test_json_rows_are_sorted_and_without_methods(capsys):
    show([{"b": 1, "a": 2, "Label": str.upper}], (("B", "b"),), "json")
    assert capsys.readouterr().out == '{"a":2,"b":1}\n'
