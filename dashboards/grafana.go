package dashboards

import (
	"encoding/json"
	"fmt"

	"github.com/grafana/grafana-foundation-sdk/go/bargauge"
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/statetimeline"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// shape is the size of each kind: Grafana's grid is 24 wide.
var shape = map[Kind]struct{ wide, high uint32 }{
	Stat: {6, 4}, Graph: {12, 8}, Table: {24, 9}, Bars: {24, 8}, Timeline: {24, 8},
}

func ref[T any](v T) *T { return &v }

// source is the data source that the person chose at the top of the board.
func source() common.DataSourceRef {
	return common.DataSourceRef{Type: ref("prometheus"), Uid: ref("${datasource}")}
}

// JSON renders the board as a Grafana dashboard of schema v1, which file and
// sidecar provisioning of all present versions take.
func (b Board) JSON() (data []byte, err error) {
	// The SDK asserts the type of errors while building and panics on others.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("render dashboard %s: %v", b.UID, p)
		}
	}()
	//lint:ignore SA1019 the newer schema cannot be imported into a Grafana before 12.
	d := dashboard.NewDashboardBuilder(b.Title).
		Uid(b.UID).Description(b.Description).Tags([]string{"nines"}).Readonly().
		Time(b.From, "now").Timezone("browser").Refresh("1m").
		Timepicker(dashboard.NewTimePickerBuilder().RefreshIntervals([]string{"1m", "5m", "15m", "1h"})).
		Tooltip(dashboard.DashboardCursorSyncCrosshair).
		Link(dashboard.NewDashboardLinkBuilder("Nines").Type(dashboard.DashboardLinkTypeDashboards).
			Tags([]string{"nines"}).AsDropdown(true).KeepTime(true).IncludeVars(true).Tooltip("The other boards of Nines")).
		WithVariable(dashboard.NewDatasourceVariableBuilder("datasource").Label("Data source").
			Description("The aggregator, or any Prometheus that holds its series.").Type("prometheus"))
	for _, v := range b.Variables {
		d.WithVariable(dashboard.NewQueryVariableBuilder(v.Name).Label(v.Label).Description(v.Description).
			Datasource(source()).Query(dashboard.StringOrMap{String: ref(v.Query)}).Definition(v.Query).
			Refresh(dashboard.VariableRefreshOnTimeRangeChanged).Sort(dashboard.VariableSortAlphabeticalCaseInsensitiveAsc).
			Multi(true).IncludeAll(true).AllValue(".*").
			Current(dashboard.VariableOption{Selected: ref(true),
				Text:  dashboard.StringOrArrayOfString{ArrayOfString: []string{"All"}},
				Value: dashboard.StringOrArrayOfString{ArrayOfString: []string{"$__all"}}}))
	}
	for _, a := range b.Annotations {
		d.Annotation(dashboard.NewAnnotationQueryBuilder().Name(a.Name).Datasource(source()).Enable(true).
			Expr(a.Expr).Step("60s").TitleFormat(a.Title).TextFormat(a.Text).IconColor(a.Colour))
	}
	var id, y uint32
	for _, r := range b.Rows {
		id++
		// Panels inside an open row are not shown, so that they follow it.
		d.WithRow(dashboard.NewRowBuilder(r.Title).Id(id).Collapsed(false).GridPos(dashboard.GridPos{H: 1, W: 24, Y: y}))
		y++
		var x, high uint32
		for _, p := range r.Panels {
			s := shape[p.Kind]
			if p.Width > 0 {
				s.wide = uint32(p.Width)
			}
			// A line holds panels of one height: mixed ones would shift.
			if x+s.wide > 24 || high != 0 && high != s.high {
				x, y = 0, y+high
			}
			high = s.high
			id++
			d.WithPanel(p.builder(id, dashboard.GridPos{X: x, Y: y, W: s.wide, H: s.high}))
			x += s.wide
		}
		y += high
	}
	built, err := d.Build()
	if err != nil {
		return nil, fmt.Errorf("render dashboard %s: %w", b.UID, err)
	}
	if data, err = json.MarshalIndent(built, "", "  "); err != nil {
		return nil, fmt.Errorf("render dashboard %s: %w", b.UID, err)
	}
	return append(data, '\n'), nil
}

func (p Panel) targets() []cog.Builder[variants.Dataquery] {
	var out []cog.Builder[variants.Dataquery]
	for i, q := range p.Queries {
		t := prometheus.NewDataqueryBuilder().RefId(string(rune('A' + i))).Expr(q.Expr).Datasource(source())
		switch p.Kind {
		case Graph, Timeline:
			t.Range().LegendFormat(q.Legend)
		case Table:
			t.Instant().Format(prometheus.PromQueryFormatTable)
		default:
			t.Instant().LegendFormat(q.Legend)
		}
		out = append(out, t)
	}
	return out
}

func (p Panel) thresholds() *dashboard.ThresholdsConfigBuilder {
	list := []dashboard.Threshold{{Color: "text"}}
	for i, s := range p.Steps {
		if i == 0 {
			list[0].Color = s.Colour
			continue
		}
		list = append(list, dashboard.Threshold{Color: s.Colour, Value: ref(s.From)})
	}
	return dashboard.NewThresholdsConfigBuilder().Mode(dashboard.ThresholdsModeAbsolute).Steps(list)
}

func (p Panel) links() []cog.Builder[dashboard.DashboardLink] {
	return []cog.Builder[dashboard.DashboardLink]{
		dashboard.NewDashboardLinkBuilder(p.Link.Title).Type(dashboard.DashboardLinkTypeLink).Url(p.Link.URL),
	}
}

// lastValue reduces a series to what it is now.
func lastValue() *common.ReduceDataOptionsBuilder {
	return common.NewReduceDataOptionsBuilder().Calcs([]string{"lastNotNull"}).Values(false)
}

func (p Panel) builder(id uint32, grid dashboard.GridPos) cog.Builder[dashboard.Panel] {
	switch p.Kind {
	case Stat:
		return stat.NewPanelBuilder().Id(id).GridPos(grid).Title(p.Title).Description(p.Description).Datasource(source()).
			Targets(p.targets()).Unit(p.Unit).Decimals(float64(p.Decimals)).NoValue(p.NoData).
			Thresholds(p.thresholds()).DataLinks(p.links()).
			ReduceOptions(lastValue()).ColorMode(common.BigValueColorModeValue).GraphMode(common.BigValueGraphModeNone).TextMode(common.BigValueTextModeValue)
	case Table:
		return p.table(id, grid)
	case Bars:
		b := bargauge.NewPanelBuilder().Id(id).GridPos(grid).Title(p.Title).Description(p.Description).Datasource(source()).
			Targets(p.targets()).Unit(p.Unit).Decimals(float64(p.Decimals)).NoValue(p.NoData).
			Thresholds(p.thresholds()).DataLinks(p.links()).
			ReduceOptions(lastValue()).Orientation(common.VizOrientationHorizontal).DisplayMode(common.BarGaugeDisplayModeBasic)
		if p.Min != nil {
			b.Min(*p.Min)
		}
		if p.Max != nil {
			b.Max(*p.Max)
		}
		return b
	case Timeline:
		return statetimeline.NewPanelBuilder().Id(id).GridPos(grid).Title(p.Title).Description(p.Description).Datasource(source()).
			Targets(p.targets()).Unit(p.Unit).NoValue(p.NoData).Thresholds(p.thresholds()).DataLinks(p.links()).
			Mappings([]dashboard.ValueMapping{{ValueMap: &dashboard.ValueMap{Type: "value", Options: map[string]dashboard.ValueMappingResult{
				"1": {Text: ref("firing"), Color: ref("red")},
			}}}}).ShowValue(common.VisibilityModeNever).RowHeight(.8)
	}
	g := timeseries.NewPanelBuilder().Id(id).GridPos(grid).Title(p.Title).Description(p.Description).Datasource(source()).
		Targets(p.targets()).Unit(p.Unit).Decimals(float64(p.Decimals)).NoValue(p.NoData).
		Thresholds(p.thresholds()).DataLinks(p.links()).
		LineWidth(1).FillOpacity(8).ShowPoints(common.VisibilityModeNever).
		Legend(common.NewVizLegendOptionsBuilder().DisplayMode(common.LegendDisplayModeList).Placement(common.LegendPlacementBottom).ShowLegend(true)).
		Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeMulti).Sort(common.SortOrderDescending))
	if p.Lines {
		g.ThresholdsStyle(common.NewGraphThresholdsStyleConfigBuilder().Mode(common.GraphThresholdsStyleModeDashed))
	}
	if p.Min != nil {
		g.Min(*p.Min)
	}
	if p.Max != nil {
		g.Max(*p.Max)
	}
	return g
}

// table joins its queries by their labels, one column a query.
func (p Panel) table(id uint32, grid dashboard.GridPos) cog.Builder[dashboard.Panel] {
	rename, order := map[string]any{}, map[string]any{}
	t := table.NewPanelBuilder().Id(id).GridPos(grid).Title(p.Title).Description(p.Description).Datasource(source()).
		Targets(p.targets()).Unit(p.Unit).Decimals(float64(p.Decimals)).NoValue(p.NoData).Thresholds(p.thresholds()).DataLinks(p.links())
	for i, q := range p.Queries {
		field := "Value #" + string(rune('A'+i))
		if len(p.Queries) == 1 {
			field = "Value"
		}
		rename[field], order[field] = q.Legend, 100+i
		t.OverrideByName(q.Legend, []dashboard.DynamicConfigValue{{Id: "unit", Value: q.Unit}})
	}
	return t.
		WithTransformation(dashboard.DataTransformerConfig{Id: "merge", Options: map[string]any{}}).
		WithTransformation(dashboard.DataTransformerConfig{Id: "organize", Options: map[string]any{
			"excludeByName": map[string]any{"Time": true, "objective_id": true},
			"indexByName":   order, "renameByName": rename,
		}})
}
