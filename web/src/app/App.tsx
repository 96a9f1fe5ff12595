import { Route, Switch } from 'wouter';

import { Empty } from '../design/Card';
import { Shell } from './Shell';
import { ProjectPage } from './ProjectPage';
import { ProjectsPage } from '../pages/projects/ProjectsPage';

export function App() {
  return (
    <Shell>
      <Switch>
        <Route path="/" component={ProjectsPage} />
        <Route path="/projects/:id/:tab?">
          {({ id, tab }) => <ProjectPage key={id} id={id} tab={tab} />}
        </Route>
        <Route>
          <Empty title="Nothing is here">
            This address leads nowhere. The projects are one click away, at the top.
          </Empty>
        </Route>
      </Switch>
    </Shell>
  );
}
