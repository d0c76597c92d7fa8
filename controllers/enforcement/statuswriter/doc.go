// Package statuswriter decides when the status of an object is judged and written. The
// reconcilers say what a status has to say.
//
// These hold:
//   - A status is written at the pace of controllers/pace, so that many reports about one
//     change become few writes.
//   - An Enforced that is True and that no longer holds is taken back at once. It waits for no
//     pace.
//   - A new generation has a second to reach its nodes before a status calls it progressing:
//     see Patience.
//   - A write that lost a race with another writer is repeated with what the cache then has. It
//     overwrites nothing.
package statuswriter
