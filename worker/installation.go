package worker

import (
	"context"
	"fmt"

	"go.temporal.io/api/workflowservice/v1"

	"postroad/store"
)

// InstallationError says that this database is driven by the workflows of
// another cluster or namespace. Were two to drive it, each would see the other
// as dead and take its leases over again and again.
type InstallationError struct {
	Stored, Here store.Installation
}

// Error implements error.
func (e *InstallationError) Error() string {
	return fmt.Sprintf("this database is driven by namespace %s of Temporal cluster %s, not by namespace %s of cluster %s: "+
		"connect to that one, or, if it is gone for good, start once with --adopt-cluster",
		e.Stored.Namespace, e.Stored.ClusterID, e.Here.Namespace, e.Here.ClusterID)
}

// checkInstallation makes sure that this worker's cluster and namespace are the
// ones that drive the database; the first worker's are.
func (w *Worker) checkInstallation(ctx context.Context) error {
	info, err := w.config.Client.WorkflowService().GetClusterInfo(ctx, &workflowservice.GetClusterInfoRequest{})
	if err != nil {
		return fmt.Errorf("ask Temporal for its cluster id: %w", err)
	}
	here := store.Installation{ClusterID: info.GetClusterId(), Namespace: w.config.Namespace}
	if w.config.AdoptCluster {
		if err := w.config.Store.PutSetting(ctx, store.SettingInstallation, here); err != nil {
			return fmt.Errorf("adopt cluster: %w", err)
		}
		return nil
	}
	stored := here
	if err := w.config.Store.SettingOnce(ctx, store.SettingInstallation, &stored); err != nil {
		return fmt.Errorf("check installation: %w", err)
	}
	if stored != here {
		return &InstallationError{Stored: stored, Here: here}
	}
	return nil
}
