package lockhttp

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
)

var (
	//go:embed page.html
	pageHTML []byte
	//go:embed page.css
	pageCSS []byte
	//go:embed page.js
	pageJS []byte
)

// page is the same for everybody and has no data in it: its script asks for that as JSON.
var page = bytes.Replace(bytes.Replace(pageHTML, []byte("{css}"), pageCSS, 1), []byte("{js}"), pageJS, 1)

// policy lets the browser run what is in the page, by its hash, and nothing else; nor does it let the script make HTML of text.
var policy = "default-src 'none'; script-src " + hash(pageJS) + "; style-src " + hash(pageCSS) +
	"; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'" +
	"; require-trusted-types-for 'script'; trusted-types 'none'"

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
