package posture

// archCalls has the one that is named otherwise here.
const archCalls = "fstatat"
