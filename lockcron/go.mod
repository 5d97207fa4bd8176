module github.com/cloudtrust/go-jobs/lock/lockcron

go 1.25.0

require (
	github.com/cloudtrust/go-jobs/lock v1.0.0
	github.com/robfig/cron/v3 v3.0.0
	github.com/stretchr/testify v1.7.2
)

require (
	github.com/davecgh/go-spew v1.1.2-0.20180830191138-d8f796af33cc // indirect
	github.com/lib/pq v1.10.0 // indirect
	github.com/pmezard/go-difflib v1.0.1-0.20181226105442-5d4384ee4fb2 // indirect
	gopkg.in/yaml.v3 v3.0.1 // indirect
)

replace github.com/cloudtrust/go-jobs/lock => ../
