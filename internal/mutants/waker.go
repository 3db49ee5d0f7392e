package mutants

// wakerMutants take out the rules of the waker, the sweep and the worker.
var wakerMutants = []Mutant{}
