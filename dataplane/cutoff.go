package dataplane

// sayWhetherCutOff logs when a watch begins to count as cut off, and when none does any
// more.
func (a *Agent) sayWhetherCutOff() {
	err := a.options.Words.CutOff()
	switch {
	case err != nil && !a.said.cutOff:
		a.log.Error(err, "The agent is cut off from the API server, and the last good rules stand")
	case err == nil && a.said.cutOff:
		a.log.Info("The API server answers again, and the agent has seen what changed")
	}
	a.said.cutOff = err != nil
}
