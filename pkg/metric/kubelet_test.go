package metric

import (
	"slices"
	"strings"
	"testing"
)

func TestEachFigureOfStorageIsDefinedForPodsContainersAndVolumes(t *testing.T) {
	for _, name := range []string{PodEphemeral, ContainerWritable, PodVolume} {
		for _, figure := range StorageFigures() {
			i := slices.IndexFunc(kubeletDefs, func(d Def) bool { return d.Name == name+"_"+figure })
			if i < 0 {
				t.Fatalf("%s_%s has no definition", name, figure)
			}
			if d := kubeletDefs[i]; (d.Unit == "bytes") != strings.HasSuffix(figure, "_bytes") || !strings.HasSuffix(d.Help, ".") || strings.HasPrefix(d.Help, ".") {
				t.Errorf("%+v", d)
			}
		}
	}
}
