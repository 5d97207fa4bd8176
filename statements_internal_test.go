package lock

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write what is sent to the databases into testdata")

// TestWhatIsSentIsWhatIsShown: testdata has the statements as each database gets them, for who reviews them, and so that a change of
// one is seen as what it is.
func TestWhatIsSentIsWhatIsShown(t *testing.T) {
	for _, d := range []dialect{postgres, cockroach, sqlite} {
		t.Run(d.name, func(t *testing.T) {
			var text strings.Builder
			d := d.withTable("locks")
			for _, statement := range []struct{ name, text string }{
				{"create", d.create}, {"take", d.take}, {"takeOnce", d.takeOnce}, {"free", d.free}, {"release", d.release},
				{"renew", d.renew}, {"check", d.check}, {"set", d.set}, {"look", d.look}, {"list", d.list},
			} {
				text.WriteString("-- " + statement.name + "\n" + statement.text + ";\n\n")
			}
			file := filepath.Join("testdata", strings.ToLower(d.name)+".sql")
			if *update {
				require.NoError(t, os.WriteFile(file, []byte(text.String()), 0o644))
			}
			shown, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, string(shown), text.String(), "go test -run %s . -update", t.Name())
		})
	}
}
