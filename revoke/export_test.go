package revoke

// Wake has Run look at once.
func (s *Stapler) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
