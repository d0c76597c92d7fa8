package policy

// Selecting returns the policies that select at least one of the pods, with or
// without an address, in the order given.
func Selecting(pods []*Pod, policies []*Policy) []*Policy {
	byNamespace := map[string][]*Pod{}
	for _, pod := range pods {
		byNamespace[pod.Namespace] = append(byNamespace[pod.Namespace], pod)
	}
	var selecting []*Policy
	for _, p := range policies {
		for _, pod := range byNamespace[p.Namespace] {
			if p.Selects(pod) {
				selecting = append(selecting, p)
				break
			}
		}
	}
	return selecting
}
