package openslo

import (
	"embed"
	"fmt"
	"slices"
	"strings"
)

//go:embed schema/*.json
var schemas embed.FS

// schemaKinds are the kinds that have a schema, OpenSLO's first.
var schemaKinds = slices.Concat([]string{"SLO", "SLI", "Service", "DataSource", "AlertPolicy", "AlertCondition", "AlertNotificationTarget"}, ninesKinds)

// SchemaKinds returns the kinds of documents that Schema knows.
func SchemaKinds() []string { return slices.Clone(schemaKinds) }

// Schema returns the JSON schema (draft 2020-12) of one kind, and of "any" one
// that takes all kinds, which suits an editor. It says what a document looks
// like; what else must hold, as that a reference leads somewhere, Load finds.
// Upper and lower case are the same. An unknown kind is an error that names the
// known ones.
func Schema(kind string) ([]byte, error) {
	for _, k := range append(SchemaKinds(), "any") {
		if strings.EqualFold(k, kind) {
			return schemas.ReadFile("schema/" + strings.ToLower(k) + ".json")
		}
	}
	return nil, fmt.Errorf("there is no schema of kind %q: want one of %s, or any for all of them", kind, strings.Join(schemaKinds, ", "))
}
