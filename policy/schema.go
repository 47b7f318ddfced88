package policy

import _ "embed"

// Schema is the JSON schema of a policy file, with which editors complete and check it. It
// is generated from the types of this package.
//
//go:generate go -C ../test run ./policyschema
//go:embed schema.json
var Schema []byte
