package mutants

// runMutants take out the rules of a run: the gate, waits, parking, the drain.
var runMutants = []Mutant{}
