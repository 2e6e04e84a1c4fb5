// Package posture sees to what the process inherits and what it may do: the
// environment that would lower its security, and what a crash leaves behind.
//
// [CheckEnv] comes first in main, before anything reads a setting; [Harden]
// follows. Neither reads a configuration.
package posture
