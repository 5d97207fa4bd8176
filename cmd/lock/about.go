//go:build unix && !aix && !solaris

package main

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) completionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "print the completion for a shell: bash, zsh or fish",
		Long: `Prints a script with which the shell completes commands, flags, and the names of the
jobs in the table.`,
		Example: `# bash, which needs the package bash-completion for it
lock completion bash >/etc/bash_completion.d/lock

# zsh
lock completion zsh >"${fpath[1]}/_lock"

# fish
lock completion fish >~/.config/fish/completions/lock.fish`,
		ValidArgs: shells,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || !slices.Contains(shells, args[0]) {
				return errors.New("name a shell: bash, zsh or fish")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			print := func(w io.Writer) error { return root.GenBashCompletionV2(w, true) }
			switch args[0] {
			case "zsh":
				print = root.GenZshCompletion
			case "fish":
				print = func(w io.Writer) error { return root.GenFishCompletion(w, true) }
			}
			return fail(exitInternal, print(a.out))
		},
	}
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "show which release this is",
		Long:    "Shows the release, the revision if it is known, the release of Go, and the system.",
		Example: "lock version",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(a.out, versionWords())
			return fail(exitInternal, err)
		},
	}
}

func versionWords() string {
	words := []string{"lock"}
	info, ok := debug.ReadBuildInfo()
	if ok {
		words = append(words, info.Main.Version)
		for _, s := range info.Settings {
			short := s.Value[:min(12, len(s.Value))]
			if s.Key == "vcs.revision" && !strings.Contains(info.Main.Version, short) {
				words = append(words, s.Value)
			}
		}
	}
	return strings.Join(append(words, runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH), " ")
}
