package lockhttp

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
)

//go:embed page
var files embed.FS

// page is the same for everybody and has no data in it: its script asks for that as JSON.
var (
	css    = read("page.css")
	script = read("words.js", "rows.js", "table.js", "dialogs.js", "news.js", "look.js")
	page   = bytes.Replace(bytes.Replace(read("page.html"), []byte("{css}"), css, 1),
		[]byte("{js}"), script, 1)
)

// policy lets the browser run what is in the page, by its hash, and nothing else; nor does it let
// the script make HTML of text.
var policy = "default-src 'none'; script-src " + hash(script) + "; style-src " + hash(css) +
	"; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'" +
	"; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func read(names ...string) (all []byte) {
	for _, name := range names {
		b, err := files.ReadFile("page/" + name)
		if err != nil {
			panic(err) // it is embedded
		}
		all = append(all, b...)
	}
	return all
}
