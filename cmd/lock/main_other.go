//go:build !unix || aix || solaris

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "lock: this system has no process groups, or no SQLite driver, "+
		"which the command is built on; package lock itself works here")
	os.Exit(70)
}
