// Package flow is the vocabulary of the house: the types that the rooms hand to
// each other. It does nothing by itself.
//
// A flow is one client connection or association from end to end. Each field of
// a [Flow] is written by one stage and read by later ones; what repeats is a
// list. Interfaces here have one method or few, and grow by optional interfaces
// such as [Bare] and [UnitReader], never by widening.
package flow
