// Package watch turns what the API server sends into values of package policy: it says which
// objects an agent's informers watch, decodes and keeps only what enforcement reads, reads
// bursts of events together, and finds out when the API server can't read what it stores.
//
// What an informer keeps of an object is a Kept value, which shares its memory with the model.
// It is no API object, and no client may read it. Values are immutable but for
// policystore.Held. The package knows no rule of the kernel and takes no lock of its own but
// that of StorageCheck.
package watch
