// Package browser tests the page of lockhttp in a real browser: Chromium, without a window.
package browser
