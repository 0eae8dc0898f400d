"""The mechanisms every resource shares: kinds, schemas, OpenAPI, tables, patches, selectors, lists and watches."""
