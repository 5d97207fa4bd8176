// Package browsertest tests the page of lockhttp in a real browser: Chromium, without a window.
package browsertest
