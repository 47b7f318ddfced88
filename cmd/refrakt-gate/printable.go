package main

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// printable returns text from elsewhere in a form that a terminal only shows: as it is, or
// quoted if it has bytes or characters that do not print, such as escape sequences.
func printable(s string) string {
	odd := func(r rune) bool { return !strconv.IsPrint(r) }
	if utf8.ValidString(s) && strings.IndexFunc(s, odd) < 0 {
		return s
	}
	return strconv.Quote(s)
}
