package browser

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/lockhttp"
)

// required makes a missing browser or axe-core a failure.
var required = os.Getenv("LOCK_TEST_CHROMIUM") == "required"

// One browser serves all tests; it starts when the first needs it.
var browser struct {
	sync.Once
	ctx   context.Context
	close func()
	err   error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if browser.close != nil {
		browser.close()
	}
	os.Exit(code)
}

func startBrowser() {
	var bin string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome",
		"google-chrome-stable"} {
		if path, err := exec.LookPath(name); err == nil {
			bin = path
			break
		}
	}
	if bin == "" {
		browser.err = exec.ErrNotFound
		return
	}
	dir, err := os.MkdirTemp("", "chromium")
	if err != nil {
		browser.err = err
		return
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(bin),
		chromedp.UserDataDir(dir), chromedp.DisableGPU, chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true), chromedp.WindowSize(1280, 900))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	// A browser newer than the library sends messages that the library doesn't know; that is no
	// error of ours.
	ctx, cancel := chromedp.NewContext(allocator, chromedp.WithErrorf(func(string, ...any) {}))
	browser.ctx = ctx
	browser.close = func() {
		chromedp.Cancel(ctx)
		cancel()
		stop()
		os.RemoveAll(dir)
	}
	browser.err = chromedp.Do(ctx)
}

// A tab is a tab of the browser with the page.
type tab struct {
	t     *testing.T
	ctx   context.Context
	wrong *complaints
}

// complaints are the errors of a page.
type complaints struct {
	mu  sync.Mutex
	all []string
}

func (c *complaints) add(s string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, s)
}

// take returns the errors so far, and forgets them.
func (c *complaints) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.all
	c.all = nil
	return all
}

// open opens a page. At the end of the test it must have no errors: no exception, and nothing
// that its policy forbids.
func open(t *testing.T, url string, before ...chromedp.Action[chromedp.Void]) tab {
	t.Helper()
	browser.Do(startBrowser)
	if browser.err == exec.ErrNotFound && !required {
		t.Skip("there is no chromium on PATH")
	}
	require.NoError(t, browser.err)
	ctx, cancel := chromedp.NewContext(browser.ctx, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 3*time.Minute)
	t.Cleanup(cancel)
	w := tab{t, ctx, new(complaints)}
	require.NoError(t, chromedp.Listen(ctx, func(event any) {
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			w.wrong.add((&chromedp.ExceptionError{ExceptionDetails: e.ExceptionDetails}).Error())
		case *log.EventEntryAdded:
			switch e.Entry.Source {
			case log.EntrySourceSecurity, log.EntrySourceViolation:
				w.wrong.add(e.Entry.Text)
			}
		case *page.EventJavascriptDialogOpening:
			w.wrong.add("a dialog: " + e.Message)
		}
	}))
	_, err := chromedp.Call(ctx, log.Enable, cdp.Empty{})
	require.NoError(t, err)
	w.do(before...)
	w.do(chromedp.Navigate(url))
	t.Cleanup(func() { require.Empty(t, w.wrong.take()) })
	return w
}

func (w tab) do(actions ...chromedp.Action[chromedp.Void]) {
	w.t.Helper()
	require.NoError(w.t, chromedp.Do(w.ctx, actions...))
}

// eval evaluates JavaScript in the tab.
func eval[T any](w tab, js string) T {
	w.t.Helper()
	v, err := chromedp.Run(w.ctx, chromedp.Evaluate[T](js))
	require.NoError(w.t, err, js)
	return v
}

// until waits for a condition of the page.
func (w tab) until(js string) {
	w.t.Helper()
	for end := time.Now().Add(time.Minute); !eval[bool](w, "!!("+js+")"); {
		if time.Now().After(end) {
			says := eval[string](w, "document.body.innerText")
			w.t.Fatalf("not reached: %s\nthe page says:\n%s", js, says)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// untilText waits until an element shows a text.
func (w tab) untilText(selector, text string) {
	w.t.Helper()
	w.until(fmt.Sprintf("document.querySelector(%q)?.innerText.includes(%q)", selector, text))
}

func (w tab) text(selector string) string {
	w.t.Helper()
	return eval[string](w, fmt.Sprintf("document.querySelector(%q).innerText", selector))
}

func (w tab) click(selector string) {
	w.t.Helper()
	w.do(chromedp.Click(chromedp.CSS(selector)))
}

// press presses keys, one after the other, wherever the focus is.
func (w tab) press(keys ...string) {
	w.t.Helper()
	for _, k := range keys {
		w.do(chromedp.KeyEvent(k))
	}
}

// focus returns the accessible name of the focused element, or its id.
func (w tab) focus() string {
	w.t.Helper()
	return eval[string](w, `((e) => e.getAttribute("aria-label") || e.textContent.trim() || e.id)(
		document.activeElement)`)
}

// picture saves a picture of the tab if LOCK_TEST_SCREENSHOTS names a folder.
func (w tab) picture(name string) {
	w.t.Helper()
	dir := os.Getenv("LOCK_TEST_SCREENSHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(w.ctx, chromedp.CaptureScreenshot())
	require.NoError(w.t, err)
	require.NoError(w.t, os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644))
}

// media sets the reader's preferences: features and their values.
func media(features ...string) chromedp.Action[chromedp.Void] {
	var p emulation.SetEmulatedMediaParams
	for i := 0; i < len(features); i += 2 {
		p.Features = append(p.Features, &emulation.MediaFeature{Name: features[i], Value: features[i+1]})
	}
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, p)
		return err
	})
}

var (
	dark   = media("prefers-color-scheme", "dark")
	light  = media("prefers-color-scheme", "light")
	wide   = chromedp.EmulateViewport(1000, 860)
	narrow = chromedp.EmulateViewport(400, 860)
)

// A server serves the page, and can go away.
type server struct {
	url   string
	asked atomic.Int64 // requests for the state
	away  atomic.Bool
}

// serve mounts the page, under a prefix.
func serve(t *testing.T, l *lock.Lock, o lockhttp.Options) *server {
	s := &server{}
	mux := http.NewServeMux()
	mux.Handle("/debug/locks/", lockhttp.New(l, o))
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("format") == "json" {
			s.asked.Add(1)
		}
		if s.away.Load() {
			panic(http.ErrAbortHandler) // the connection breaks
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(h.Close)
	s.url = h.URL + "/debug/locks/"
	return s
}

func anything(*http.Request, lockhttp.Action) error { return nil }

func anHour(string, string) time.Duration { return time.Hour }

// sqlite returns a new database.
func sqlite(t *testing.T) *sql.DB {
	file := filepath.Join(t.TempDir(), "locks.db")
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(10000)")
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

const (
	tabKey   = kb.Tab
	enterKey = kb.Enter
	escKey   = kb.Escape
)
