package browser

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock/lockhttp"
)

var (
	schemes = map[string]chromedp.Action[chromedp.Void]{"light": light, "dark": dark}
	widths  = map[string]chromedp.Action[chromedp.Void]{"wide": wide, "narrow": narrow}
)

// axe is the script of axe-core, which npm installs into a folder of the test.
var axe = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "axe")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("npm", "install", "--prefix", dir, "--ignore-scripts", "--no-audit",
		"--no-fund", "--no-save", "axe-core@4")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("axe-core can't be had: %w\n%s", err, out)
	}
	script, err := os.ReadFile(filepath.Join(dir, "node_modules", "axe-core", "axe.min.js"))
	return string(script), err
})

// check runs axe-core on the page as it is.
func (w tab) check(what string) {
	w.t.Helper()
	w.until("document.getAnimations().length === 0") // what has changed is lit up for a while
	const run = `axe.run({resultTypes: ["violations"]}).then((r) => r.violations.flatMap((v) =>
		v.nodes.map((n) => v.id + ": " + n.html.slice(0, 200) + " " + n.failureSummary)))`
	found, err := chromedp.Run(w.ctx, chromedp.Evaluate[[]string](run, chromedp.EvalAwaitPromise))
	require.NoError(w.t, err)
	require.Empty(w.t, found, what)
}

func (w tab) withAxe() tab {
	w.t.Helper()
	script, err := axe()
	if err != nil && !required {
		w.t.Skip(err)
	}
	require.NoError(w.t, err)
	eval[bool](w, script+"\n;true")
	return w
}

func TestPage_accessible(t *testing.T) {
	for _, c := range []struct {
		n             int
		scheme, width string
	}{
		{0, "light", "wide"}, {0, "dark", "narrow"},
		{3, "light", "wide"}, {3, "dark", "narrow"}, {3, "dark", "wide"}, {3, "light", "narrow"},
		{500, "light", "wide"}, {500, "dark", "narrow"},
	} {
		t.Run(fmt.Sprint(c.n, " locks, ", c.scheme, ", ", c.width), func(t *testing.T) {
			if c.n == 0 {
				l, _ := memory()
				page := serve(t, l, lockhttp.Options{Authorize: anything}).url
				w := open(t, page, schemes[c.scheme], widths[c.width]).withAxe()
				w.untilText("#none", "There is no lock yet.")
				w.picture(fmt.Sprint(c.n, "-", c.scheme, "-", c.width))
				w.check("the page")
				return
			}
			w := newFleet(t, c.n).open(schemes[c.scheme], widths[c.width]).withAxe()
			w.untilText("#locks tbody", "backup")
			w.check("the page")
			if c.n > 3 {
				return
			}
			w.click(disableButton)
			w.picture(fmt.Sprint("disable-", c.scheme, "-", c.width))
			w.check("asking before a job is disabled")
			w.click("#confirm-do")
			w.untilText("#notice", "is disabled")
			w.check("disabled")
			w.click(releaseButton)
			w.check("asking before a lock is released")
			w.press(escKey)
			w.click("#locks tbody th button")
			w.check("the details")
			w.press(escKey)
			w.click("#counters .free")
			w.until(`document.querySelector("#counters .free").ariaPressed === "true"`)
			w.check("a filter")
		})
	}
}
