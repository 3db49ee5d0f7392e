// Package bench measures Postroad from outside: it starts the product and a
// receiver as processes of their own, drives them over HTTP, and sets what it
// measures against the floor of the same machine in the same minute.
//
// A Scenario declares what it measures, its floor and its goals; it checks by the
// receiver's books that every event came, once and in order. The measured stretch
// of it is watched: CPU time and memory by process, what PostgreSQL and Temporal
// did per delivery, and a profile where one is wanted.
//
// Figures are ratios: bare rates say more about the machine than about the
// product. A run that lost, repeated or reordered an event has no figure, it
// has failed.
package bench
