package docs_test

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/cloudtrust/go-jobs/lock"

// packages are imported by the code of the pages without being named.
var packages = append(strings.Fields("context database/sql errors fmt log log/slog net/http os "+
	"os/signal sync time"),
	module, module+"/locktest", module+"/lockhttp", module+"/locktick", module+"/lockcron",
	module+"/lockgocron",
	module+"/locknotify", module+"/lockotel", module+"/lockprom")

// exports returns the export files of packages, by their paths. Those of a module that is not in
// the build are missing.
var exports = sync.OnceValues(func() (map[string]string, error) {
	cmd := exec.Command("go", append([]string{"list", "-e", "-export", "-deps", "-f",
		"{{.ImportPath}} {{.Export}}"}, packages...)...)
	cmd.Dir = "../tests" // whose module it is
	out, err := cmd.Output()
	files := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if name, file, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			files[name] = file
		}
	}
	return files, err
})

// known declares the names that the pieces of code share.
const known = "var (\n\tctx context.Context\n\tdb *sql.DB\n\ttx *sql.Tx\n\tl " +
	"*lock.Lock\n\tlease *lock.Lease\n)\n"

// parse makes a file of a piece of code: a file, declarations, or statements.
func parse(fset *token.FileSet, text string) (file *ast.File, err error) {
	if strings.HasPrefix(text, "package ") {
		return parser.ParseFile(fset, "", text, parser.SkipObjectResolution)
	}
	head := "package page\n"
	for _, p := range packages {
		if regexp.MustCompile(`\b` + path.Base(p) + `\.`).MatchString(known + text) {
			head += fmt.Sprintf("import %q\n", p)
		}
	}
	head += known
	if file, err := parser.ParseFile(fset, "", head+text, parser.SkipObjectResolution); err == nil {
		return file, nil
	}
	return parser.ParseFile(fset, "", head+"func _() error {\n"+text+"\n}",
		parser.SkipObjectResolution)
}

// A piece of code omits what its reader fills in: names and returns.
var leftOut = regexp.MustCompile(`^undefined: [a-z]\w*$|^missing return|` +
	`^not enough return values|^too many return values`)

// TestPages_go compiles the Go code of every page.
func TestPages_go(t *testing.T) {
	files, err := exports()
	require.NoError(t, err)
	for _, b := range shown(t, "go") {
		t.Run(b.at, func(t *testing.T) {
			fset := token.NewFileSet()
			file, err := parse(fset, b.text)
			require.NoError(t, err)
			for _, i := range file.Imports {
				if name := strings.Trim(i.Path.Value, `"`); files[name] == "" && name != "unsafe" {
					t.Skipf("%s is not in the build", name)
				}
			}
			lookup := func(name string) (io.ReadCloser, error) { return os.Open(files[name]) }
			config := types.Config{Importer: importer.ForCompiler(fset, "gc", lookup),
				Error: func(err error) {
					if e := err.(types.Error); !e.Soft && !leftOut.MatchString(e.Msg) {
						t.Error(e.Msg)
					}
				}}
			config.Check("page", fset, []*ast.File{file}, nil)
		})
	}
}
