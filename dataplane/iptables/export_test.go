package iptables

// Script is the change of the mangle table.
func (c *Change) Script() string { return c.script(tableName) }
