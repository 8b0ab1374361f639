package scrape

import (
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/targetgroup"
)

// Job is one scrape configuration with its targets on this node.
type Job struct {
	Config *config.ScrapeConfig
	Groups []*targetgroup.Group
}
