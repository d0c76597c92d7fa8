package report

import (
	"cmp"
	"maps"
	"slices"
)

// shareFairly returns the items that fit into the room, in the order of items. Namespaces
// share the room evenly: what one namespace needs less than its share goes to the others, so
// that a namespace loses an entry only when it has more of them than its even share.
// The same items give the same result, whatever their order.
func shareFairly[T any](items []T, room int, namespaceOf func(T) string) []T {
	if len(items) <= room {
		return items
	}
	needs := map[string]int{}
	for _, item := range items {
		needs[namespaceOf(item)]++
	}
	shares := evenShares(needs, room)
	var fitting []T
	for _, item := range items {
		if namespace := namespaceOf(item); shares[namespace] > 0 {
			shares[namespace]--
			fitting = append(fitting, item)
		}
	}
	return fitting
}

// evenShares splits the room between namespaces (max-min fairness): the smallest needs are
// met first, and each of the others gets an even part of what is left then.
func evenShares(needs map[string]int, room int) map[string]int {
	names := slices.SortedFunc(maps.Keys(needs), func(a, b string) int {
		return cmp.Or(cmp.Compare(needs[a], needs[b]), cmp.Compare(a, b))
	})
	shares := make(map[string]int, len(needs))
	for i, name := range names {
		shares[name] = min(needs[name], room/(len(names)-i))
		room -= shares[name]
	}
	return shares
}
