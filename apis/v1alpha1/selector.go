package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ToMeta returns s as a metav1.LabelSelector, which shares no memory with s.
// For nil it returns nil, which selects nothing.
func (s *LabelSelector) ToMeta() *metav1.LabelSelector {
	if s == nil {
		return nil
	}
	selector := &metav1.LabelSelector{}
	for key, value := range s.MatchLabels {
		metav1.AddLabelToSelector(selector, key, string(value))
	}
	for _, requirement := range s.MatchExpressions {
		selector.MatchExpressions = append(selector.MatchExpressions, requirement.toMeta())
	}
	return selector
}

func (r LabelSelectorRequirement) toMeta() metav1.LabelSelectorRequirement {
	requirement := metav1.LabelSelectorRequirement{
		Key:      r.Key,
		Operator: metav1.LabelSelectorOperator(r.Operator),
	}
	for _, value := range r.Values {
		requirement.Values = append(requirement.Values, string(value))
	}
	return requirement
}
