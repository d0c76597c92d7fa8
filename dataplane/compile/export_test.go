package compile

// CompileNaming makes names as the test says.
var CompileNaming = compileNaming
