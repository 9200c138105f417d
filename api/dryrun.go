package api

// DryRun answers POST /task?dry_run=true: what the request would create. Tasks are named by the ids that the request
// gives them.
type DryRun struct {
	Tasks int `json:"tasks"`
	// Links counts the dependencies.
	Links int `json:"links"`
	// Waves are the tasks by how many others have to end before, one after the other: those of the first wave depend on
	// nothing, those of each other wave on one of the wave before it. Each wave is in request order.
	Waves [][]string `json:"waves"`
	// LongestPath goes along dependencies through one task of each wave.
	LongestPath []string `json:"longest_path"`
	// Limits are those that rules of the request name, each with its values and its maximum once.
	Limits []DryRunLimit `json:"limits"`
	// LimitsOmitted counts the rules that are not in Limits, where there are very many different ones; left out when all
	// are.
	LimitsOmitted int `json:"limits_omitted,omitempty"`
}

// DryRunLimit is a limit as it stands for some of the tasks.
type DryRunLimit struct {
	Gate
	Max int `json:"max"`
	// Tasks is how many of the request count there, with or without a rule of their own.
	Tasks int `json:"tasks"`
	// AtOnce is how many of these may want to run at the same time, at most, as dependencies between them keep some
	// apart; of Capacity, how much work they bring.
	AtOnce int `json:"at_once"`
	// Binds: AtOnce is so much that the limit may hold tasks back. If not, the tasks of this request alone will
	// never wait there.
	Binds bool `json:"binds"`
}
