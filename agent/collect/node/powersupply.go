package node

import "github.com/prometheus/procfs/sysfs"

type supplyRow = sysfs.PowerSupply

// supplyColumn divides what the kernel counts in millionths, tenths or ones.
func supplyColumn(name string, unit float64, help string, v func(*supplyRow) *int64) column[supplyRow] {
	return column[supplyRow]{gauge("node_power_supply_"+name, help), func(r *supplyRow) (float64, bool) {
		if p := v(r); p != nil {
			return float64(*p) / unit, true
		}
		return 0, false
	}}
}

var supplyInfo = gauge("node_power_supply_info", "Always 1; the labels say what the supply is.")

var supplyColumns = []column[supplyRow]{
	supplyColumn("authentic", 1, "1 where the battery is the maker's own.", func(r *supplyRow) *int64 { return r.Authentic }),
	supplyColumn("calibrate", 1, "1 where the battery is being calibrated.", func(r *supplyRow) *int64 { return r.Calibrate }),
	supplyColumn("capacity", 1, "Charge in percent.", func(r *supplyRow) *int64 { return r.Capacity }),
	supplyColumn("capacity_alert_max", 1, "Charge in percent above which the battery gives an alarm.", func(r *supplyRow) *int64 { return r.CapacityAlertMax }),
	supplyColumn("capacity_alert_min", 1, "Charge in percent below which the battery gives an alarm.", func(r *supplyRow) *int64 { return r.CapacityAlertMin }),
	supplyColumn("charge_ampere", 1e6, "Charge of the battery, ampere hours.", func(r *supplyRow) *int64 { return r.ChargeNow }),
	supplyColumn("charge_control_limit", 1e6, "Limit of charging in force.", func(r *supplyRow) *int64 { return r.ChargeControlLimit }),
	supplyColumn("charge_control_limit_max", 1e6, "Largest limit of charging.", func(r *supplyRow) *int64 { return r.ChargeControlLimitMax }),
	supplyColumn("charge_counter", 1e6, "Charge that went in and out, ampere hours.", func(r *supplyRow) *int64 { return r.ChargeCounter }),
	supplyColumn("charge_empty", 1e6, "Charge at which the battery counts as empty, ampere hours.", func(r *supplyRow) *int64 { return r.ChargeEmpty }),
	supplyColumn("charge_empty_design", 1e6, "Charge at which the battery as built counts as empty, ampere hours.", func(r *supplyRow) *int64 { return r.ChargeEmptyDesign }),
	supplyColumn("charge_full", 1e6, "Charge at which the battery counts as full, ampere hours.", func(r *supplyRow) *int64 { return r.ChargeFull }),
	supplyColumn("charge_full_design", 1e6, "Charge at which the battery as built counts as full, ampere hours.", func(r *supplyRow) *int64 { return r.ChargeFullDesign }),
	supplyColumn("charge_term_current", 1e6, "Current at which charging ends, ampere.", func(r *supplyRow) *int64 { return r.ChargeTermCurrent }),
	supplyColumn("constant_charge_current", 1e6, "Current of charging, ampere.", func(r *supplyRow) *int64 { return r.ConstantChargeCurrent }),
	supplyColumn("constant_charge_current_max", 1e6, "Largest current of charging, ampere.", func(r *supplyRow) *int64 { return r.ConstantChargeCurrentMax }),
	supplyColumn("constant_charge_voltage", 1e6, "Voltage of charging, volts.", func(r *supplyRow) *int64 { return r.ConstantChargeVoltage }),
	supplyColumn("constant_charge_voltage_max", 1e6, "Largest voltage of charging, volts.", func(r *supplyRow) *int64 { return r.ConstantChargeVoltageMax }),
	supplyColumn("current_ampere", 1e6, "Current, ampere.", func(r *supplyRow) *int64 { return r.CurrentNow }),
	supplyColumn("current_boot", 1e6, "Current at the start, ampere.", func(r *supplyRow) *int64 { return r.CurrentBoot }),
	supplyColumn("current_max", 1e6, "Largest current, ampere.", func(r *supplyRow) *int64 { return r.CurrentMax }),
	supplyColumn("cyclecount", 1, "Times that the battery was charged and emptied.", func(r *supplyRow) *int64 { return r.CycleCount }),
	supplyColumn("energy_empty", 1e6, "Energy at which the battery counts as empty, watt hours.", func(r *supplyRow) *int64 { return r.EnergyEmpty }),
	supplyColumn("energy_empty_design", 1e6, "Energy at which the battery as built counts as empty, watt hours.", func(r *supplyRow) *int64 { return r.EnergyEmptyDesign }),
	supplyColumn("energy_full", 1e6, "Energy at which the battery counts as full, watt hours.", func(r *supplyRow) *int64 { return r.EnergyFull }),
	supplyColumn("energy_full_design", 1e6, "Energy at which the battery as built counts as full, watt hours.", func(r *supplyRow) *int64 { return r.EnergyFullDesign }),
	supplyColumn("energy_watthour", 1e6, "Energy in the battery, watt hours.", func(r *supplyRow) *int64 { return r.EnergyNow }),
	supplyColumn("input_current_limit", 1e6, "Limit of the current that is taken in, ampere.", func(r *supplyRow) *int64 { return r.InputCurrentLimit }),
	supplyColumn("online", 1, "1 or 2 where the supply gives power, 0 where it does not.", func(r *supplyRow) *int64 { return r.Online }),
	supplyColumn("power_watt", 1e6, "Power, watts.", func(r *supplyRow) *int64 { return r.PowerNow }),
	supplyColumn("precharge_current", 1e6, "Current with which an empty battery is charged first, ampere.", func(r *supplyRow) *int64 { return r.PrechargeCurrent }),
	supplyColumn("present", 1, "1 where the battery is there.", func(r *supplyRow) *int64 { return r.Present }),
	supplyColumn("temp_alert_max_celsius", 10, "Temperature above which the battery gives an alarm.", func(r *supplyRow) *int64 { return r.TempAlertMax }),
	supplyColumn("temp_alert_min_celsius", 10, "Temperature below which the battery gives an alarm.", func(r *supplyRow) *int64 { return r.TempAlertMin }),
	supplyColumn("temp_ambient_celsius", 10, "Temperature around the battery.", func(r *supplyRow) *int64 { return r.TempAmbient }),
	supplyColumn("temp_ambient_max_celsius", 10, "Largest temperature around the battery that is allowed.", func(r *supplyRow) *int64 { return r.TempAmbientMax }),
	supplyColumn("temp_ambient_min_celsius", 10, "Smallest temperature around the battery that is allowed.", func(r *supplyRow) *int64 { return r.TempAmbientMin }),
	supplyColumn("temp_celsius", 10, "Temperature of the battery.", func(r *supplyRow) *int64 { return r.Temp }),
	supplyColumn("temp_max_celsius", 10, "Largest temperature that is allowed.", func(r *supplyRow) *int64 { return r.TempMax }),
	supplyColumn("temp_min_celsius", 10, "Smallest temperature that is allowed.", func(r *supplyRow) *int64 { return r.TempMin }),
	supplyColumn("time_to_empty_seconds", 1, "Time until the battery is empty.", func(r *supplyRow) *int64 { return r.TimeToEmptyNow }),
	supplyColumn("time_to_full_seconds", 1, "Time until the battery is full.", func(r *supplyRow) *int64 { return r.TimeToFullNow }),
	supplyColumn("voltage_boot", 1e6, "Voltage at the start, volts.", func(r *supplyRow) *int64 { return r.VoltageBoot }),
	supplyColumn("voltage_max", 1e6, "Largest voltage, volts.", func(r *supplyRow) *int64 { return r.VoltageMax }),
	supplyColumn("voltage_max_design", 1e6, "Largest voltage of the battery as built, volts.", func(r *supplyRow) *int64 { return r.VoltageMaxDesign }),
	supplyColumn("voltage_min", 1e6, "Smallest voltage, volts.", func(r *supplyRow) *int64 { return r.VoltageMin }),
	supplyColumn("voltage_min_design", 1e6, "Smallest voltage of the battery as built, volts.", func(r *supplyRow) *int64 { return r.VoltageMinDesign }),
	supplyColumn("voltage_ocv", 1e6, "Voltage without a load, volts.", func(r *supplyRow) *int64 { return r.VoltageOCV }),
	supplyColumn("voltage_volt", 1e6, "Voltage, volts.", func(r *supplyRow) *int64 { return r.VoltageNow }),
}

func newPowerSupply(n *node) (func(*tick) error, error) {
	sys, err := sysfs.NewFS(n.cfg.Sys)
	if err != nil {
		return nil, err
	}
	return func(t *tick) error {
		all, err := sys.PowerSupplyClass()
		if err != nil {
			return err
		}
		rows := sorted(all, func(s *supplyRow) []string { return []string{"power_supply", s.Name} })
		table(&t.page, supplyColumns, rows)
		t.family(supplyInfo)
		for i := range rows {
			s := &rows[i].data
			t.add(labels("power_supply", s.Name, "capacity_level", s.CapacityLevel, "charge_type", s.ChargeType, "health", s.Health,
				"manufacturer", s.Manufacturer, "model_name", s.ModelName, "serial_number", s.SerialNumber, "status", s.Status,
				"technology", s.Technology, "type", s.Type, "usb_type", s.UsbType, "scope", s.Scope), 1)
		}
		return nil
	}, nil
}
