package locknotify

import (
	_ "embed"
	"strings"
)

//go:embed trigger.sql
var trigger string

// Trigger returns the SQL of a function and a trigger that announce every row that becomes free
// or enabled. It is optional, for a migration. table is the table's name in SQL, such as locks or
// "my schema".locks.
func Trigger(table string) string { return strings.ReplaceAll(trigger, "{table}", table) }
