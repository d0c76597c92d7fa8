// Package common stands in for the Tencent Cloud SDK, which flanneld needs to
// compile one cloud backend that the local cluster never selects. It holds only
// the names that this backend uses.
package common

// StringPtr returns a pointer to a copy of v.
func StringPtr(v string) *string { return &v }

// BoolPtr returns a pointer to a copy of v.
func BoolPtr(v bool) *bool { return &v }

// StringPtrs returns a pointer to each of the values.
func StringPtrs(values []string) []*string {
	pointers := make([]*string, len(values))
	for i := range values {
		pointers[i] = &values[i]
	}
	return pointers
}
