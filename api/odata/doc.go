// Package odata is the OData 4.01 side of a feed: what a URL below the service
// root asks for, and what the answer looks like.
//
// It owns the grammar (resource paths, query options, $filter), the meaning of a
// filter, twice: as a condition in SQL and as a function of one entity, and the
// documents of an OData service: service document, $metadata, pages, errors. It
// refuses to know HTTP servers and databases: the package api mounts it, reads
// rows and says which SQL expression stands for which property.
//
// A filter comes from strangers. It is read by a recursive descent with bounds on
// length, depth, nodes and lists, every value becomes an argument of the query and
// none its text, and what it means is held against PostgreSQL and a second
// evaluator by tests and fuzz targets.
//
// References: [OData-Protocol], [OData-URL], [OData-ABNF], [OData-JSON] and
// [OData-CSDLXML] are the parts of OASIS OData 4.01.
package odata
