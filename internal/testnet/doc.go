// Package testnet runs the real program for tests, with what stands around it:
// servers to dial, records to wait for, network namespaces to cut.
package testnet
