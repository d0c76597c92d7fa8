// Package appstatus writes into the status of each AppIsolation on which nodes its policy is
// enforced, which other policies allow more, and whether it is Ready.
//
// These hold:
//   - Enforced and Ready speak of the spec's present generation, or carry an older
//     observedGeneration. `kubectl wait` accepts only the first.
//   - It writes only its own part of the status. controllers/appisolation writes the rest: see
//     the note on writers there.
//   - A change of Ready is told by an event, and progress is not.
package appstatus
