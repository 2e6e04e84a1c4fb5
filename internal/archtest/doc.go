// Package archtest holds the plan of the house as text, and tests that hold the
// code against it: who may import whom, who owns which foreign module, how long
// a file may be. Do not relax a line to mend a build: move the code.
package archtest
