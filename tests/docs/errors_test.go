package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"
)

// unseen are the errors that no caller gets.
var unseen = map[string]string{
	"the server is of another kind": "the call is made again, in the server's dialect",
	"not yet":                       "it begins a loop",
}

var verb = regexp.MustCompile(`%[+#]?[a-zA-Z]`)

// TestErrors_page: each message of the package and its store is on the page, with … for what
// differs.
func TestErrors_page(t *testing.T) {
	content, err := os.ReadFile("errors.md")
	require.NoError(t, err)
	seen := 0
	for _, message := range messages(t, "..", "../internal/store") {
		if unseen[message] != "" {
			continue
		}
		seen++
		if shown := verb.ReplaceAllString(message, "…"); !strings.Contains(string(content), shown) {
			t.Errorf("errors.md does not have %q", shown)
		}
	}
	require.Greater(t, seen, 40)
}

// messages returns the messages of the errors in these folders, except those without a word of
// their own.
func messages(t *testing.T, folders ...string) (all []string) {
	for _, folder := range folders {
		files, err := filepath.Glob(filepath.Join(folder, "*.go"))
		require.NoError(t, err)
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			require.NoError(t, err)
			for _, declaration := range file.Decls {
				f, _ := declaration.(*ast.FuncDecl)
				ast.Inspect(declaration, func(n ast.Node) bool {
					call, ok := n.(*ast.CallExpr)
					if !ok || len(call.Args) == 0 {
						return true
					}
					switch callee(call) {
					case "errors.New", "fmt.Errorf":
					case "fmt.Sprintf":
						if f == nil || f.Name.Name != "Error" {
							return true
						}
					default:
						return true
					}
					message := text(call.Args[0])
					if strings.ContainsFunc(verb.ReplaceAllString(message, ""), unicode.IsLetter) {
						all = append(all, message)
					}
					return true
				})
			}
		}
	}
	return all
}

func callee(call *ast.CallExpr) string {
	if s, ok := call.Fun.(*ast.SelectorExpr); ok {
		if x, ok := s.X.(*ast.Ident); ok {
			return x.Name + "." + s.Sel.Name
		}
	}
	return ""
}

// text returns the value of a string literal, or of a sum of them; "" for anything else.
func text(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, _ := strconv.Unquote(e.Value)
		return s
	case *ast.BinaryExpr:
		return text(e.X) + text(e.Y)
	}
	return ""
}
