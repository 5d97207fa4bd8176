package locknotify

import (
	_ "embed"
	"strings"
)

//go:embed trigger.sql
var trigger string

// Trigger returns the SQL of a function and a trigger that tell of every row that becomes free or
// enabled, whoever has done it. It is for a migration: offered, and not required. table is the
// table's name as it stands in SQL, such as locks or "my schema".locks.
func Trigger(table string) string { return strings.ReplaceAll(trigger, "{table}", table) }
