// Package bench measures Postroad from outside: it starts the product and a
// receiver as processes of their own, drives them over HTTP, and sets what it
// measures against the floor of the same machine in the same minute.
//
// Figures are ratios: bare rates say more about the machine than about the
// product. A run that lost, repeated or reordered an event has no figure, it
// has failed.
package bench
