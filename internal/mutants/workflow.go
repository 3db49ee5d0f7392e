package mutants

// workflowMutants take out the rules of the workflow.
var workflowMutants = []Mutant{}
