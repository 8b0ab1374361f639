package main

import (
	"context"
	"strings"

	"nines/pkg/openslo"
)

var schemaCommand = command{
	name: "schema", args: "[KIND]",
	summary: "print the JSON schema of a kind of document, for editors",
	help: `
KIND is one of ` + strings.Join(openslo.SchemaKinds(), ", ") + `;
without it the schema is that of any of them, which suits a folder of all kinds.
Upper and lower case are the same. An editor that has it completes keys, explains
them, and marks what is wrong while you write; check finds what a schema cannot say.

Example, for editors with the YAML language server (one line at the top of a file):
  nines-aggregator schema > nines.schema.json
  # yaml-language-server: $schema=./nines.schema.json`,
	run: func(_ context.Context, e env, args []string) error {
		rest, err := parse(options("schema"), args)
		if err != nil {
			return err
		}
		kind := "any"
		switch len(rest) {
		case 0:
		case 1:
			kind = rest[0]
		default:
			return usagef("it takes one kind, got %q, too", rest[1])
		}
		data, err := openslo.Schema(kind)
		if err != nil {
			return usageError{err}
		}
		_, err = e.out.Write(data)
		return err
	},
}
