package main

import "testing"

// P-22: the unit that is shipped leaves little, as systemd judges: at most 2.0 of 10.
func TestUnitIsHardened(t *testing.T) {
	mustExecute(t, "", "systemd-analyze", "security", "--offline=yes", "--threshold=20", "../../packaging/sallyport.service")
}
