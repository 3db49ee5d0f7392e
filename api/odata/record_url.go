package odata

// rawInKeys are the characters of a key that stay as they are in a path: the
// unreserved ones, and quotes, which many servers and clients want raw.
const rawInKeys = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.~'"

// RecordPath is the path of a record below the service root: what ParsePath reads
// back as its name and key.
func RecordPath(name, key string) string {
	return encode(name) + "(" + encode(quote(key)) + ")"
}

// RecordURLColumn is the ResourceRecordUrl of an event in SQL: what the event came
// with, else root followed by the path of its record. It is what EventRow shows
// with root and RecordPath. All four are SQL expressions; the URL's is null where
// the event came without.
func RecordURLColumn(url, root, name, key string) string {
	return "coalesce(" + url + ", " + root + " || " + encodeSQL(name) + " || '(''' || " +
		encodeSQL("replace("+key+", '''', '''''')") + " || ''')')"
}

// encodeSQL is encode of an SQL expression.
func encodeSQL(text string) string {
	return "(SELECT coalesce(string_agg(CASE WHEN strpos(" + quote(rawInKeys) + ", chr(c.byte)) > 0 THEN chr(c.byte)" +
		" ELSE '%' || upper(lpad(to_hex(c.byte), 2, '0')) END, '' ORDER BY c.at), '')" +
		" FROM (SELECT get_byte(convert_to(" + text + ", 'UTF8'), g) AS byte, g AS at" +
		" FROM generate_series(0, length(convert_to(" + text + ", 'UTF8')) - 1) AS g) AS c)"
}
