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
          <Empty title="Page not found">Open your projects from the link at the top.</Empty>
        </Route>
      </Switch>
    </Shell>
  );
}
