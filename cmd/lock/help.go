//go:build unix && !aix && !solaris

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// statusHelp says what our exit statuses mean.
var statusHelp = map[int]string{
	exitUsage:    "the command line is wrong",
	exitDatabase: "the database can't be reached, fails, or has a table with a problem",
	exitInternal: "an internal error",
	exitHeld:     "refused: another holds the lock, or runs this tick (0 with --if-held skip)",
	exitDisabled: "refused: the job is disabled",
	exitRun: "refused: this tick, or a later one, has been run already " +
		"(0 with --if-held skip)",
	exitLost:     "the lock was lost while the command ran, and the command ended",
	exitAhead:    "the tick is ahead of the database's clock: the tick or a clock is wrong",
	exitCannot:   "the command can't be executed",
	exitNotFound: "the command is not found",
	exitSignal:   "and N: signal N ended the command, or lock run before the command began",
}

// exitStatuses returns the annotation that names the exit statuses of a command for its help.
func exitStatuses(codes ...int) map[string]string {
	var words []string
	for _, code := range codes {
		words = append(words, strconv.Itoa(code))
	}
	return map[string]string{"exit": strings.Join(words, " ")}
}

const environment = `
LOCK_DB         the default of --db; a password is safer here, since everybody can see command
                lines
LOCK_COMPONENT  the default of --component
XDG_STATE_HOME  the user's state folder, by default ~/.local/state; --db local is lock/locks.db
                in it
NO_COLOR        if set, nothing is coloured
PGPASSWORD, PGPASSFILE, PGSSLMODE, …: as for psql`

// signalHelp is the table of reactions.
func signalHelp() string {
	var b strings.Builder
	for _, r := range reactions {
		fmt.Fprintf(&b, "%s (%s)\n    command: %s\n    lock: %s; exit status: %s\n", r.signal,
			r.state, r.command, r.lock, r.exit)
	}
	return b.String()
}

// help prints the help of a command in the form of a manual page.
func (a *app) help(cmd *cobra.Command, _ []string) {
	var b strings.Builder
	color := colored(os.Stdout)
	section := func(title, text string) {
		if text = strings.Trim(text, "\n"); text == "" {
			return
		}
		if color {
			title = bold + title + plain
		}
		fmt.Fprintf(&b, "%s\n", title)
		for line := range strings.Lines(text) {
			if line != "\n" {
				b.WriteString("  ")
			}
			b.WriteString(line)
		}
		b.WriteString("\n\n")
	}
	section("NAME", cmd.CommandPath()+" - "+cmd.Short)
	synopsis := cmd.UseLine()
	if cmd.HasAvailableSubCommands() {
		synopsis = cmd.CommandPath() + " COMMAND [flags]"
	}
	section("SYNOPSIS", synopsis)
	section("DESCRIPTION", wrap(cmd.Long, 96))
	var commands strings.Builder
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() || c.Name() == "help" {
			fmt.Fprintf(&commands, "%-12s%s\n", c.Name(), c.Short)
		}
	}
	section("COMMANDS", commands.String())
	section("OPTIONS", unindent(cmd.LocalFlags().FlagUsagesWrapped(98)))
	section("OPTIONS OF ALL COMMANDS", unindent(cmd.InheritedFlags().FlagUsagesWrapped(98)))
	section("EXAMPLES", cmd.Example)
	statuses := "  0  success\n"
	if cmd.Name() == "run" {
		statuses = "     the command's own, and of lock run itself:\n"
	}
	for _, word := range strings.Fields(cmd.Annotations["exit"]) {
		code, _ := strconv.Atoi(word) // exitStatuses wrote it
		statuses += fmt.Sprintf("%3d  %s\n", code, statusHelp[code])
	}
	if cmd.Annotations["exit"] == "" {
		statuses += fmt.Sprintf("%3d  %s\n", exitUsage, statusHelp[exitUsage])
	}
	if cmd.HasAvailableSubCommands() {
		statuses = "see the help of each command\n"
	} else if cmd.Name() != "run" {
		statuses = strings.ReplaceAll(statuses, " (0 with --if-held skip)", "")
	}
	section("EXIT STATUS", statuses)
	variables := environment
	if cmd.Name() == "run" {
		section("SIGNALS", signalHelp())
		variables += "\n\nThe command gets these, which lock run never reads:" + heldHelp
	}
	section("ENVIRONMENT", variables)
	fmt.Fprint(a.out, strings.TrimSuffix(b.String(), "\n"))
}

// unindent removes the indentation that pflag adds.
func unindent(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimPrefix(line, "  ")
	}
	return strings.Join(lines, "\n")
}

// wrap rewraps the paragraphs of a text, except those that are indented.
func wrap(s string, most int) string {
	var b strings.Builder
	for i, paragraph := range strings.Split(s, "\n\n") {
		if i > 0 {
			b.WriteString("\n\n")
		}
		if strings.HasPrefix(paragraph, "\t") || strings.HasPrefix(paragraph, " ") {
			b.WriteString(paragraph)
			continue
		}
		n := 0
		for j, word := range strings.Fields(paragraph) {
			switch {
			case j == 0:
			case n+1+len(word) > most:
				b.WriteString("\n")
				n = 0
			default:
				b.WriteString(" ")
				n++
			}
			b.WriteString(word)
			n += len(word)
		}
	}
	return b.String()
}
