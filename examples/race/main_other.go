//go:build !unix || aix || solaris

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "race: this system has no flock and no SIGKILL, which the proof that no two ran at once is built on; package lock itself works here")
	os.Exit(2)
}
